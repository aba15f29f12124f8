# The gateway's image, from wheels as the sandbox image is; `docker/build-image gateway` lays out the context.
ARG BASE=omniops-base:bookworm

FROM ${BASE} AS build
COPY wheels /wheels
RUN PYTHONPATH="$(echo /wheels/pip-*.whl)" python3 -m pip install --quiet --root-user-action=ignore \
      --disable-pip-version-check --no-index --find-links=/wheels --break-system-packages omniops-kernels \
 && rm -rf /wheels /usr/share/doc /usr/share/man /usr/share/locale /var/cache /var/lib/apt /var/log/* \
 && find / -xdev -perm /6000 -type f -exec chmod a-s {} + \
 && mkdir -p /var/lib/omniops /run/omniops

FROM scratch
COPY --from=build / /
ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 TZ=UTC \
    OMNIOPS_DATA_DIR=/var/lib/omniops OMNIOPS_RUNTIME_DIR=/run/omniops
WORKDIR /var/lib/omniops
EXPOSE 8765
ENTRYPOINT ["omniops"]
CMD ["serve"]
