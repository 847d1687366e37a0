# Both images again with another version number, for tests that mix versions. Built on the first stage of
# deploy/docker/Dockerfile and on the image that it makes.
ARG VERSION
FROM localhost/gateway-pro/build:${VERSION} AS build
RUN sed -i 's/\(GWP_VERSION "[0-9.]*\)"/\1-next"/' proto/base/version.h && make --silent -j"$(nproc)" programs && \
    strip build/gwp*

FROM localhost/gateway-pro/dataplane:${VERSION} AS dataplane
COPY --from=build /src/gateway-pro/build/gwp-dataplane /usr/bin/

FROM localhost/gateway-pro/controlplane:${VERSION} AS controlplane
COPY --from=build /src/gateway-pro/build/gwp-controlplane /src/gateway-pro/build/gwpctl /usr/bin/
