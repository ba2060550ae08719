#!/bin/sh
# Serves /www on [::]:8080. As a machine's first process httpd would not hear SIGTERM, and whoever
# deletes the pod would wait for the whole grace period; a shell with a trap does hear it.
trap 'kill "$server"; exit 0' TERM INT
httpd -f -v -p 8080 -h /www &
server=$!
wait "$server"
