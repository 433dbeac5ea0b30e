#!/usr/bin/env bash
# Creates the secrets of the compose mesh, once, in envoy/secrets (or the given folder): certificates under their own
# CA, passwords, and the key that signs sessions. Nothing is overwritten: remove the folder to start again. Needs
# openssl. EXTRA_NAMES (for example `IP:127.0.0.1`) are added to the certificates of the servers.
set -euo pipefail
umask 077
into=${1:-$(dirname "$0")/secrets}
extra=${EXTRA_NAMES:+,$EXTRA_NAMES}

[ ! -e "$into" ] || { echo "secrets: $into is there already" >&2; exit 1; }
partly=$into.part
rm -rf "$partly"
mkdir -p "$partly"
cd "$partly"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
random() { openssl rand -hex 32 | tr -d '\n'; }

key ca-key
openssl req -x509 -new -key ca-key -sha256 -days 365 -subj "/CN=portcullis demo authority" -out ca \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign

# A server certificate with these names, for a year.
certificate() {
    local name=$1 names=$2
    key "$name-key"
    openssl req -new -key "$name-key" -subj "/CN=$name" | openssl x509 -req -CA ca -CAkey ca-key -sha256 -days 365 \
        -out "$name-certificate" -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' \
        "$names$extra") 2>/dev/null
}
certificate edge DNS:localhost,DNS:edge,IP:127.0.0.1
certificate redis DNS:redis-1,DNS:redis-2,DNS:redis-3,DNS:localhost,IP:127.0.0.1

random >shared-secret
random >session-secret
random >admin-token
random >grafana-password

# WAIT and, from 7.2 on, WAITAOF are among these categories; an older Redis rejects an unknown command name. Their
# dangerous commands (CLIENT KILL and similar) are removed. Redis keeps only digests; only the clients have the
# passwords.
random >redis-password
random >redis-admin-password
digest() { openssl dgst -sha256 -r "$1" | cut -d' ' -f1; }
cat >redis-users <<END
user default off
user admin on #$(digest redis-admin-password) ~* &* +@all
user portcullis on #$(digest redis-password) resetchannels ~portcullis:* -@all +@connection +@blocking -@dangerous +time +info +role +get +set +mget +pttl +scan +del +eval +exists +pexpire +hset +hmget +zadd +zcard +zrange +zrem +zremrangebyscore +xadd +xrange +xrevrange +config|get +cluster|nodes +asking
END

# Signs the JWTs of sessions; the service publishes the public half (RFC 7517).
key issuer-key

# The container engine mounts a file with its owner and mode, and the users in the containers differ from yours. So the
# files are readable, and the folder keeps other users out.
chmod 644 ./*
chmod 600 ca-key
cd - >/dev/null
mv "$partly" "$into"
echo "secrets: made $into"
