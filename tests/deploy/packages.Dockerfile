# A Debian with the packages installed from files, as `apt install ./*.deb` does it. The context is their folder.
FROM localhost/gateway-pro/base:bookworm
COPY *.deb /packages/
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends /packages/gwp-controlplane_*.deb /packages/gwp-dataplane_*.deb >/dev/null 2>&1
