# What is shipped: included by the Makefile. DEPLOY.md beside it says which of these is for whom.

ENGINE   ?= podman
BASE     ?= docker.io/library/debian:bookworm-slim
VERSION  := $(shell sed -n 's/^\#define GWP_VERSION "\(.*\)"/\1/p' proto/base/version.h)
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null)
IMAGE    ?= localhost/gateway-pro

# BASE=local is a Debian that debootstrap makes. Docker's format, because OCI's knows no health checks.
images:
	@set -e; base="$(BASE)"; if [ "$$base" = local ]; then base=localhost/gateway-pro-base; \
	    $(ENGINE) image inspect $$base >/dev/null 2>&1 || { echo "  BASE  $$base"; \
	        ENGINE=$(ENGINE) deploy/docker/base.sh $$base; }; fi; \
	for target in dataplane controlplane; do \
	    echo "  IMAGE $(IMAGE)/$$target:$(VERSION)"; \
	    $(ENGINE) build --quiet $(if $(filter docker,$(ENGINE)),,--format docker) $(BUILD_FLAGS) --build-arg BASE=$$base \
	        --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --file deploy/docker/Dockerfile \
	        --target $$target --tag $(IMAGE)/$$target:$(VERSION) .; done

.PHONY: images
