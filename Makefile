# gateway-pro: everything is built from here, out of tree, into build/. `make help` lists the targets.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
AR      := ar
PROTOC  := protoc-c
PYTHON  := /usr/bin/python3
PREFIX  ?= /usr/local
DESTDIR ?=
B       := build
Q       := $(if $(V),,@) # make V=1 shows the commands

# ---- what is needed (Debian's package names); only `run`, `test` and their like install what is missing ----

BUILD_PACKAGES := gcc libc6-dev pkg-config libev-dev libyaml-dev libprotobuf-c-dev protobuf-c-compiler \
    libmicrohttpd-dev libc-ares-dev libjansson-dev libxxhash-dev libhiredis-dev
TEST_PACKAGES  := libcriterion-dev python3-pytest python3-pytest-xdist python3-pytest-timeout python3-yaml curl strace \
    redis-server zsh fish groff-base patch prometheus python3-prometheus-client python3-jsonschema
FUZZ_PACKAGES  := clang-14 libclang-rt-14-dev
LINT_PACKAGES  := clang-14 clang-format-14 clang-tidy-14 cppcheck
BENCH_PACKAGES := nginx-light haproxy redis-server linux-perf valgrind
DEB_PACKAGES   := debhelper
IMAGE_PACKAGES := podman runc catatonit debootstrap
DEPLOY_PACKAGES := podman-compose systemd netavark aardvark-dns iptables iproute2 python3-pytest python3-pytest-timeout \
    python3-yaml python3-jsonschema shellcheck lintian \
    $(if $(shell command -v npm),,npm)

GOALS  := $(or $(MAKECMDGOALS),all)
NEEDED := $(if $(filter-out help clean format,$(GOALS)),$(BUILD_PACKAGES)) \
    $(if $(filter run,$(GOALS)),python3 curl) \
    $(if $(filter deps test unit e2e asan tsan %-units,$(GOALS)),$(TEST_PACKAGES)) \
    $(if $(filter deps lint format,$(GOALS)),$(LINT_PACKAGES)) \
    $(if $(filter deps fuzz,$(GOALS)),$(FUZZ_PACKAGES)) \
    $(if $(filter deps bench bench-instructions,$(GOALS)),$(BENCH_PACKAGES)) \
    $(if $(filter deps changes soak,$(GOALS)),nginx-light wrk python3-yaml) \
    $(if $(filter images deploy-test,$(GOALS)),$(IMAGE_PACKAGES)) \
    $(if $(filter deb deploy-test,$(GOALS)),$(DEB_PACKAGES)) \
    $(if $(filter deploy-test,$(GOALS)),$(DEPLOY_PACKAGES))
installed = dpkg-query -W -f='$${Status}\n' $(1) 2>/dev/null | grep -q '^install ok installed'
MISSING := $(shell command -v dpkg-query >/dev/null || exit 0; \
    for p in $(NEEDED); do $(call installed,$$p) || echo $$p; done; \
    pkg-config --exists libllhttp 2>/dev/null || [ -z "$(strip $(NEEDED))" ] || [ -d /usr/share/llhttp ] || echo llhttp)

ifneq ($(MISSING),)
ifneq ($(filter run test unit e2e asan tsan lint fuzz drill bench bench-instructions bench-limiter changes soak deps build-deps \
    images deb deploy-test,$(GOALS)),)
# make rebuilds what it includes, then starts over: so the rest of this file only runs with everything installed.
include $(B)/installed.mk
$(B)/installed.mk: FORCE
	@test -z "$(MAKE_RESTARTS)" || { echo "Still missing after the installation: $(MISSING)"; exit 1; }
	@mkdir -p $(B)
	@as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	packages="$(filter-out llhttp,$(MISSING))"; $$as_root apt-get -qq update; \
	[ -z "$(filter llhttp,$(MISSING))" ] || { apt-cache show libllhttp-dev >/dev/null 2>&1 && \
	    packages="$$packages libllhttp-dev" || packages="$$packages node-llhttp"; }; \
	echo "Installing Debian packages:" $$packages; \
	DEBIAN_FRONTEND=noninteractive $$as_root apt-get -qq install -y --no-install-recommends $$packages >/dev/null
	@echo "# made by make: the packages were installed" > $@
FORCE:
else
$(error These Debian packages are missing: $(MISSING). Install them with "make deps")
endif
endif

# ---- flags ----

LIBS_COMMON := libprotobuf-c libxxhash
LIBS_DP     := $(LIBS_COMMON) hiredis
LIBS_CP     := $(LIBS_COMMON) yaml-0.1 libmicrohttpd libcares jansson

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
    -Wwrite-strings -Wundef -Wvla -Wformat=2 -Wno-unused-parameter -Wno-missing-field-initializers
HARDENING := -fPIE -fstack-protector-strong -fstack-clash-protection
CPPFLAGS_ALL = -I. -I$(B)/gen -D_GNU_SOURCE $(LLHTTP_CPPFLAGS)
CFLAGS_ALL = -std=gnu17 -g $(WARNINGS) -fno-strict-aliasing -pthread

# Link-time optimisation takes a tenth of the instructions off a request. It is for the data plane: its objects hold
# ordinary code as well, with which everything else is linked.
LTO := $(shell $(CC) -flto=auto -ffat-lto-objects -Werror -x c -c /dev/null -o /dev/null 2>/dev/null && \
    echo -flto=auto -ffat-lto-objects)
release_PLAIN_CFLAGS = $(if $(LTO),-fno-lto)
release_TEST_CFLAGS  = $(release_PLAIN_CFLAGS) -O2
release_CFLAGS  = -O3 $(LTO) $(HARDENING) -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
release_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed
asan_CFLAGS     = -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
asan_LDFLAGS    = -fsanitize=address,undefined
tsan_CFLAGS     = -O1 -fno-omit-frame-pointer -fsanitize=thread
tsan_LDFLAGS    = -fsanitize=thread

# Criterion dies under the thread sanitizer: a header of ours stands in for it there.
release_UNIT = -lcriterion
asan_UNIT    = -lcriterion
tsan_UNIT    = -Itests/unit/plain

# libFuzzer is clang's; every other variant replays the seeds of the same drivers.
fuzz_CFLAGS     = -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
fuzz_LDFLAGS    = -fsanitize=fuzzer,address,undefined
FUZZ_SECONDS    ?= 60

# ---- llhttp: the library where there is one, its sources otherwise ----

ifeq ($(shell pkg-config --exists libllhttp 2>/dev/null && echo yes),yes)
LLHTTP_CPPFLAGS := $(shell pkg-config --cflags libllhttp)
LLHTTP_LIBS     := $(shell pkg-config --libs libllhttp)
LLHTTP_SOURCES  :=
else
LLHTTP_CPPFLAGS := -isystem /usr/share/include/llhttp
LLHTTP_LIBS     :=
LLHTTP_SOURCES  := api.c http.c llhttp.c
endif

# ---- sources ----

PROTO_SRC := $(wildcard proto/*.c proto/base/*.c)
DP_SRC    := $(filter-out dataplane/main.c,$(wildcard dataplane/*.c dataplane/*/*.c))
CTL_SRC   := $(filter-out controlplane/ctl/main.c,$(wildcard controlplane/ctl/*.c))
CP_SRC    := $(filter-out controlplane/main.c,$(wildcard controlplane/*.c controlplane/config/*.c \
                 controlplane/health/*.c controlplane/admin/*.c))
FUZZ_SRC  := $(wildcard tests/fuzz/fuzz_*.c)
UNIT_SRC  := $(wildcard tests/unit/*.c tests/unit/*/*.c tests/unit/*/*/*.c)
PAGES     := $(wildcard controlplane/admin/pages/*)
C_FILES    = $(wildcard proto/*.[ch] proto/base/*.[ch] dataplane/*.[ch] dataplane/*/*.[ch] controlplane/*.[ch] \
                 controlplane/*/*.[ch]) $(UNIT_SRC) $(wildcard tests/bench/*.[ch] tests/fuzz/*.[ch])

all: programs

# ---- generated ----

$(B)/gen/proto/gateway.pb-c.c $(B)/gen/proto/gateway.pb-c.h &: proto/gateway.proto
	@mkdir -p $(B)/gen
	@echo "  GEN   $@"
	$(Q)$(PROTOC) --c_out=$(B)/gen proto/gateway.proto

# ---- one set of rules for each variant: release in build/, asan, tsan and fuzz below it ----

release_DIR := $(B)
asan_DIR    := $(B)/asan
tsan_DIR    := $(B)/tsan
fuzz_DIR    := $(B)/fuzz
$(fuzz_DIR)/%: override CC := clang-14

# What has main() in a fuzz driver: replay.c, or libFuzzer.
release_FUZZ_MAIN := tests/fuzz/replay.c
asan_FUZZ_MAIN    := tests/fuzz/replay.c
tsan_FUZZ_MAIN    := tests/fuzz/replay.c
fuzz_FUZZ_MAIN    :=

# $(1) variant
define VARIANT
$(1)_OBJ   := $$($(1)_DIR)/obj
$(1)_PROTO := $$(PROTO_SRC:%.c=$$($(1)_OBJ)/%.o) $$($(1)_OBJ)/gen/gateway.pb-c.o \
              $$(LLHTTP_SOURCES:%.c=$$($(1)_OBJ)/llhttp/%.o)
$(1)_DP    := $$(DP_SRC:%.c=$$($(1)_OBJ)/%.o)
$(1)_CP    := $$(CP_SRC:%.c=$$($(1)_OBJ)/%.o)
$(1)_CTL   := $$(CTL_SRC:%.c=$$($(1)_OBJ)/%.o)
$(1)_UNITS := $$(UNIT_SRC:tests/unit/%.c=$$($(1)_DIR)/unit/%)
$(1)_FUZZ  := $$(FUZZ_SRC:tests/fuzz/%.c=$$($(1)_DIR)/drivers/%)

$$($(1)_OBJ)/%.o: %.c $$(B)/gen/proto/gateway.pb-c.h
	@mkdir -p $$(@D)
	@echo "  CC    $$@"
	$$(Q)$$(CC) $$(CPPFLAGS_ALL) $$(CPPFLAGS) $$(CFLAGS_ALL) $$($(1)_CFLAGS) \
	    $$(if $$(filter controlplane/%,$$<),$$($(1)_PLAIN_CFLAGS)) $$(CFLAGS) -MMD -MP -c -o $$@ $$<

# Code that is not ours is compiled without our warnings.
$$($(1)_OBJ)/gen/gateway.pb-c.o: $$(B)/gen/proto/gateway.pb-c.c $$(B)/gen/proto/gateway.pb-c.h
	@mkdir -p $$(@D)
	@echo "  CC    $$@"
	$$(Q)$$(CC) -I$$(B)/gen -std=gnu17 -g -w $$($(1)_CFLAGS) $$(CFLAGS) -c -o $$@ $$<

$$($(1)_OBJ)/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $$(@D)
	@echo "  CC    $$@"
	$$(Q)$$(CC) $$(LLHTTP_CPPFLAGS) -DLLHTTP_STRICT_MODE=1 -std=gnu17 -g -w $$($(1)_CFLAGS) $$(CFLAGS) -c -o $$@ $$<

$$($(1)_DIR)/libproto.a: $$($(1)_PROTO)
	@rm -f $$@ && $$(AR) rcs $$@ $$^
$$($(1)_DIR)/libdataplane.a: $$($(1)_DP)
	@rm -f $$@ && $$(AR) rcs $$@ $$^
$$($(1)_DIR)/libcontrolplane.a: $$($(1)_CP)
	@rm -f $$@ && $$(AR) rcs $$@ $$^
$$($(1)_DIR)/libctl.a: $$($(1)_CTL)
	@rm -f $$@ && $$(AR) rcs $$@ $$^

$$($(1)_DIR)/gwp-dataplane: $$($(1)_OBJ)/dataplane/main.o $$($(1)_DIR)/libdataplane.a $$($(1)_DIR)/libproto.a
	@echo "  LINK  $$@"
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$($(1)_CFLAGS) $$(CFLAGS) $$($(1)_LDFLAGS) $$(LDFLAGS) -o $$@ $$^ -lev $$(LLHTTP_LIBS) \
	    $$(shell pkg-config --libs $$(LIBS_DP)) -lm
$$($(1)_DIR)/gwp-controlplane: $$($(1)_OBJ)/controlplane/main.o $$($(1)_DIR)/libcontrolplane.a $$($(1)_DIR)/libproto.a
	@echo "  LINK  $$@"
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$($(1)_CFLAGS) $$($(1)_PLAIN_CFLAGS) $$(CFLAGS) $$($(1)_LDFLAGS) $$(LDFLAGS) -o $$@ $$^ -lev \
	    $$(shell pkg-config --libs $$(LIBS_CP)) -lm
$$($(1)_DIR)/gwpctl: $$($(1)_OBJ)/controlplane/ctl/main.o $$($(1)_DIR)/libctl.a $$($(1)_DIR)/libcontrolplane.a \
    $$($(1)_DIR)/libproto.a
	@echo "  LINK  $$@"
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$($(1)_CFLAGS) $$($(1)_PLAIN_CFLAGS) $$(CFLAGS) $$($(1)_LDFLAGS) $$(LDFLAGS) -o $$@ $$^ -lev $$(LLHTTP_LIBS) \
	    $$(shell pkg-config --libs $$(LIBS_CP)) -lm

# A test that includes a module's .c takes it from there; all else comes from the libraries.
$$($(1)_DIR)/unit/%: tests/unit/%.c $$($(1)_DIR)/libdataplane.a $$($(1)_DIR)/libctl.a $$($(1)_DIR)/libcontrolplane.a \
    $$($(1)_DIR)/libproto.a
	@mkdir -p $$(@D)
	@echo "  TEST  $$@"
	$$(Q)$$(CC) $$(CPPFLAGS_ALL) $$(CPPFLAGS) $$(CFLAGS_ALL) $$($(1)_CFLAGS) $$($(1)_TEST_CFLAGS) $$(CFLAGS) \
	    $$($(1)_LDFLAGS) $$(LDFLAGS) -MMD -MP -MF $$@.d -o $$@ $$< $$(filter %.a,$$^) $$($(1)_UNIT) -lev $$(LLHTTP_LIBS) \
	    $$(shell pkg-config --libs $$(LIBS_CP) $$(LIBS_DP)) -lm

$$($(1)_DIR)/drivers/%: tests/fuzz/%.c $$($(1)_FUZZ_MAIN) $$($(1)_DIR)/libdataplane.a $$($(1)_DIR)/libcontrolplane.a \
    $$($(1)_DIR)/libproto.a
	@mkdir -p $$(@D)
	@echo "  FUZZ  $$@"
	$$(Q)$$(CC) $$(CPPFLAGS_ALL) $$(CPPFLAGS) $$(CFLAGS_ALL) $$($(1)_CFLAGS) $$($(1)_PLAIN_CFLAGS) $$(CFLAGS) \
	    $$($(1)_LDFLAGS) $$(LDFLAGS) -MMD -MP -MF $$@.d -o $$@ $$($(1)_FUZZ_MAIN) $$< $$(filter %.a,$$^) -lev $$(LLHTTP_LIBS) \
	    $$(shell pkg-config --libs $$(LIBS_CP) $$(LIBS_DP)) -lm

$(1)-programs: $$($(1)_DIR)/gwp-dataplane $$($(1)_DIR)/gwp-controlplane $$($(1)_DIR)/gwpctl
$(1)-units: $$($(1)_UNITS) $$($(1)_FUZZ)
.PHONY: $(1)-programs $(1)-units

endef

$(foreach v,release asan tsan fuzz,$(eval $(call VARIANT,$(v))))
-include $(shell find $(B) -path $(B)/deploy -prune -o -name '*.d' -type f -print 2>/dev/null)

programs: release-programs

# Pages of the admin API are compiled in.
$(foreach v,release asan tsan fuzz,$($(v)_OBJ)/controlplane/admin/pages.o): $(PAGES)

# ---- running and testing ----

run: programs
	@$(PYTHON) tests/demo.py --build $(B)

# $(1) variant, $(2) how many e2e tests side by side
run_units = set -e; printf '%s\n' $($(1)_UNITS) | xargs -P 2 -I {} sh -c 'echo "== {}"; {} --jobs 2 $(UNIT_ARGS)'; \
    for t in $($(1)_FUZZ); do $$t tests/fuzz/seeds/$${t\#\#*/fuzz_}; done
E2E      ?= tests/e2e # which of them
run_e2e   = GWP_BUILD=$($(1)_DIR) $(PYTHON) -B -m pytest -q -n $(2) --timeout 120 $(E2E) $(E2E_ARGS)

test: programs release-units
	@$(call run_units,release)
	@$(call run_e2e,release,4)

unit: release-units
	@$(call run_units,release)

e2e: programs
	@$(call run_e2e,release,4)

# Leaks are errors; a finding ends the program, and with it the test.
asan: export ASAN_OPTIONS = detect_leaks=1:abort_on_error=0:exitcode=99
asan: export UBSAN_OPTIONS = print_stacktrace=1
asan: asan-programs asan-units
	@$(call run_units,asan)
	@$(call run_e2e,asan,3)

tsan: export TSAN_OPTIONS = exitcode=99:halt_on_error=1:second_deadlock_stack=1
tsan: tsan-programs tsan-units
	@$(call run_units,tsan)
	@$(call run_e2e,tsan,3)

# One driver at a time. What it finds is kept in build/fuzz/found/ and ends the run; once fixed, it becomes a seed.
fuzz: $(fuzz_FUZZ)
	@set -e; mkdir -p $(B)/fuzz/found; for t in $(fuzz_FUZZ); do \
	    name=$${t##*/fuzz_}; mkdir -p $(B)/fuzz/corpus/$$name; echo "== $$name, $(FUZZ_SECONDS) seconds"; \
	    $$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
	        -verbosity=0 -dict=tests/fuzz/$$name.dict -artifact_prefix=$(B)/fuzz/found/$$name- \
	        $(B)/fuzz/corpus/$$name tests/fuzz/seeds/$$name; done

# The relay, backend and clients of the benchmark. SCENARIOS="plain full", ROUNDS and SECONDS (of each subject in a round).
BENCH_PROGRAMS := $(B)/bench/floor $(B)/bench/origin $(B)/bench/clients
$(BENCH_PROGRAMS): $(B)/bench/%: tests/bench/%.c tests/bench/endpoints.h
	@mkdir -p $(@D)
	@echo "  CC    $@"
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -O2 $(CFLAGS) -o $@ $<
ROUNDS  ?= 5
SECONDS ?= 3
# Kills, freezes and replaces both programs under load. KILLS=100 takes some minutes.
KILLS ?= 5
drill: programs
	@$(PYTHON) -B tests/drill/drill.py --kills $(KILLS)

bench: programs $(BENCH_PROGRAMS)
	@$(PYTHON) -B tests/bench/bench.py --build $(B) --rounds $(ROUNDS) --seconds $(SECONDS) \
	    $(if $(SCENARIOS),--scenarios "$(SCENARIOS)")

bench-instructions: programs $(BENCH_PROGRAMS)
	@$(PYTHON) -B tests/bench/instructions.py --build $(B) $(if $(RECORD),--record) $(if $(FUNCTIONS),--functions $(FUNCTIONS))

$(B)/bench/bench_%: tests/bench/bench_%.c $(B)/libdataplane.a $(B)/libproto.a
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CPPFLAGS) $(CFLAGS_ALL) $(release_CFLAGS) $(CFLAGS) $(release_LDFLAGS) $(LDFLAGS) \
	    -MMD -MP -MF $@.d -o $@ $< $(filter %.a,$^) -lev $(LLHTTP_LIBS) $$(pkg-config --libs $(LIBS_DP)) -lm

bench-limiter: $(B)/bench/bench_limiter
	@$<

# What changes of the configuration cost; many pushes under load, which must fail no request and leave memory flat.
changes: programs $(B)/bench/clients
	@$(PYTHON) tests/bench/changes.py --build $(B)
SOAK_PUSHES ?= 100000
soak: programs
	@$(PYTHON) tests/bench/changes.py --build $(B) --soak $(SOAK_PUSHES)

# ---- looking after the code ----

TIDY_FILES = $(filter %.c,$(C_FILES))
lint: $(B)/gen/proto/gateway.pb-c.h
	@echo "  LINT  clang-format"
	$(Q)clang-format-14 --dry-run --Werror $(C_FILES)
	@echo "  LINT  clang-tidy"
	$(Q)printf '%s\n' $(filter-out tests/%,$(TIDY_FILES)) | xargs -P 2 -I {} clang-tidy-14 --quiet --warnings-as-errors='*' \
	    {} -- $(CPPFLAGS_ALL) $(CFLAGS_ALL) 2>/dev/null
	@echo "  LINT  cppcheck"
	$(Q)cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,performance,portability \
	    --suppress=missingIncludeSystem -j 2 -I. -I$(B)/gen $(filter-out tests/%,$(TIDY_FILES))

format:
	$(Q)clang-format-14 -i $(C_FILES)

deps build-deps:
	@echo "Everything that building, testing, linting and measuring need is installed."

# Manual pages and what shells complete are said by the programs themselves, from the tables that they go by.
MAN_PAGES   := $(B)/man/gwpctl.1 $(B)/man/gwp-controlplane.8 $(B)/man/gwp-dataplane.8
COMPLETIONS := $(B)/completion/gwpctl $(B)/completion/_gwpctl $(B)/completion/gwpctl.fish
man: $(MAN_PAGES)
$(B)/man/gwpctl.1: $(B)/gwpctl
	@mkdir -p $(@D)
	$(Q)$< manual > $@
$(B)/man/%.8: $(B)/%
	@mkdir -p $(@D)
	$(Q)$< --manual > $@
$(B)/completion/gwpctl: $(B)/gwpctl
	@mkdir -p $(@D)
	$(Q)$< completion bash > $@
$(B)/completion/_gwpctl: $(B)/gwpctl
	@mkdir -p $(@D)
	$(Q)$< completion zsh > $@
$(B)/completion/gwpctl.fish: $(B)/gwpctl
	@mkdir -p $(@D)
	$(Q)$< completion fish > $@

install: programs man $(COMPLETIONS)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/gateway-pro $(DESTDIR)$(PREFIX)/share/man/man1 \
	    $(DESTDIR)$(PREFIX)/share/man/man8 \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 644 $(B)/man/gwpctl.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 $(B)/man/gwp-controlplane.8 $(B)/man/gwp-dataplane.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -m 644 $(B)/completion/gwpctl $(DESTDIR)$(PREFIX)/share/bash-completion/completions/
	install -m 644 $(B)/completion/_gwpctl $(DESTDIR)$(PREFIX)/share/zsh/site-functions/
	install -m 644 $(B)/completion/gwpctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/
	install -m 755 $(B)/gwp-dataplane $(B)/gwp-controlplane $(B)/gwpctl $(DESTDIR)$(PREFIX)/bin/
	install -m 644 configs/gateway.yaml $(DESTDIR)$(PREFIX)/share/gateway-pro/

-include deploy/deploy.mk # images, packages and charts; not there while an image is being built

clean:
	rm -rf $(B)

help:
	@echo "make           build gwp-dataplane, gwp-controlplane and gwpctl into $(B)/"
	@echo "make run       install what is missing, build, start the pair with two demo backends"
	@echo "make test      install what is missing, build, then unit and end-to-end tests"
	@echo "make unit|e2e  one of the two   (E2E_ARGS='-k NAME', UNIT_ARGS='--filter NAME')"
	@echo "make asan|tsan both suites under address+undefined or thread sanitizer"
	@echo "make fuzz      every parser against libFuzzer, FUZZ_SECONDS=$(FUZZ_SECONDS) each"
	@echo "make lint      clang-format, clang-tidy, cppcheck;   make format: write the formatting"
	@echo "make bench     beside a relay, nginx and HAProxy   (SCENARIOS='plain new' ROUNDS=5 SECONDS=3)"
	@echo "make bench-instructions  user instructions per request, against those recorded"
	@echo "make bench-limiter       ns per decision"
	@echo "make drill     both programs killed, frozen and replaced under load, KILLS=$(KILLS) times each"
	@echo "make changes   from a file's write to the generation in force, at 1, 100 and 10,000 routes"
	@echo "make soak      SOAK_PUSHES=$(SOAK_PUSHES) pushes under load: no request fails, memory stays flat"
	@echo "make deps      install the Debian packages for all of the above"
	@echo "make man       the manual pages, into $(B)/man/"
	@echo "make images    container images with ENGINE=$(ENGINE), BASE=local where no registry can be reached"
	@echo "make deb       Debian packages, into $(B)/deploy/deb/packages/"
	@echo "make dist      the sources of what is committed, into $(B)/deploy/"
	@echo "make deploy-test  images, pods, compose, chart and packages, really run (as root)"
	@echo "make install   into DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)"
	@echo "make clean     remove $(B)/"

.PHONY: all programs run test unit e2e asan tsan fuzz drill changes soak bench bench-instructions bench-limiter lint format deps man install clean help
