#!/bin/sh
# A callback for Patroni: tells weir to look at the cluster at once. In patroni.yml, on every node:
#   postgresql:
#     callbacks:
#       on_role_change: /etc/patroni/weir-callback.sh
#       on_stop: /etc/patroni/weir-callback.sh
# /etc/patroni/weir.header holds one line, readable by Patroni's user alone:
#   Authorization: Bearer TOKEN
# TOKEN is what patroni.callback_token or patroni.callback_token_file has in weir. Patroni adds action, role and scope as
# arguments; weir has no use for them. Name every weir; one that cannot be reached costs half a second at most.
for weir in 10.0.0.5:9633 10.0.0.6:9633; do
    curl -fsS -m 0.5 -X POST -H @/etc/patroni/weir.header "http://$weir/" >/dev/null &
done
wait
