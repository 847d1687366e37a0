# What stands in for the public images of Redis and Python where no registry can be reached.
FROM localhost/gateway-pro/base:bookworm
RUN apt-get -qq update && \
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends redis-server python3 >/dev/null 2>&1
