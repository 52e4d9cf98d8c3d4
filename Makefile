# SPDX-License-Identifier: GPL-2.0-or-later
# This Makefile calls Meson in build/root, the Debian that scripts/bootstrap
# makes.  meson.build drives all builds and tests.  See README.rst.
#
#   make demo    build all, migrate an encrypted guest between two emulated hosts
#                HELPER=off: without the migration helper
#   make check   the regular test suite, without the long tests below
#   make check-selftests   Linux's own KVM selftests, on both kernels
#   make check-debug   the module's tests on kernels that detect errors
#   make check-reload      load and unload the module 100 times
#   make check-hosts       migrations between two hosts, with all pairs of kernels
#   make check-helper      migrations by the migration helper, all cases
#   make check-libvirt     migrations by Debian's libvirt between two hosts
#   make check-failures    migrations that fail, all cases; takes hours
#   make check-es  a guest with SEV-ES boots
#   make check-bare        migrations of a guest of a few KiB, all cases
#   make check-moves       one guest migrates 100 times
#   make check-bases       build and test with the other bases, Linux 7.2 and QEMU 10.2
#   make docs    the manuals, in build/docs
#   make bench   measure the module's calls and QEMU, in build/bench*.json
#   make fuzz    search for new inputs for the loader, 10 million runs or RUNS
#   make deb     the Debian packages of the KVM module and of sev-migrate, in build/deb
#   make check-deb   install, run, upgrade and remove these packages
#   make deb-qemu    Debian's packages of QEMU with our patches, in build/deb/qemu;
#                compiles QEMU with all of Debian's features
#   make check-deb-qemu   install, run, upgrade, downgrade and remove these packages
#   make series  the patches for QEMU, in build/series (with QEMU_SERIES=10.2 in
#                build/bases), signed off by git's user or by SIGNOFF
#   make series-check   apply, build and test the series patch by patch
#   make         build all
#   make l1      build what scripts/l1 needs
#   make clean   remove the builds, keep the downloads
#   make distclean   remove everything
#
# docs/devel/building.rst lists the variables, for example JOBS and TESTS.

MAKEFLAGS += --no-print-directory
ifndef SIGNOFF
SIGNOFF := $(shell n=$$(git config user.name) && m=$$(git config user.email) && echo "$$n <$$m>")
endif
export SIGNOFF MIGRATION_TEST CACHE_DIR JOBS TESTS PACKAGES STORM FUZZ RUNS QEMU_SRC KERNEL_SRC KERNEL_SERIES QEMU_SERIES
export STEP_BEGAN := $(shell date +%s)

ninja = ./scripts/in-root ninja -C /b/meson --quiet $(if $(JOBS),-j $(JOBS))

all deb check-selftests check-reload check-hosts check-helper check-failures check-bare check-moves check-es bench: setup
	@$(ninja) $@

l1: setup
	@$(ninja) l1.stamp

demo: hosts = $(or $(KERNEL),module)
demo: helper = $(or $(HELPER),on)
demo: setup
	@$(ninja) l1.stamp guest.stamp helper.stamp
	@mkdir -p build/demo
	@bash -c '. scripts/lib.sh; say "two emulated SEV hosts boot (20 seconds), with $(hosts) KVM"'
	@$(if $(filter-out off,$(helper)),L1_CACHE_CHECK=count) \
		./scripts/in-root ./scripts/l1-pair --lead --kernel $(hosts) --timeout 2400 \
		--share $(CURDIR)/build/demo -- /usr/bin/env STEP_BEGAN=$(STEP_BEGAN) \
		./scripts/demo -o $(CURDIR)/build/demo --helper $(helper)

check: setup
	@$(ninja) all
	@./scripts/in-root ./scripts/check $(TESTS)

check-bases:
	@tests/series/bases

check-deb: setup
	@$(ninja) l1.stamp deb
	@./scripts/in-root --root sh -c './scripts/check --suite deb; rc=$$?; \
		chown -R --reference=/b/meson /b/meson/meson-*; exit $$rc'

deb-qemu: setup
	@./scripts/in-root --root ./scripts/build/deb-qemu

check-deb-qemu: deb-qemu
	@$(ninja) l1.stamp
	@./scripts/in-root --root sh -c './scripts/check --suite deb-qemu; rc=$$?; \
		chown -R --reference=/b/meson /b/meson/meson-*; exit $$rc'

check-libvirt: setup
	@$(ninja) l1.stamp guest.stamp helper.stamp
	@./scripts/in-root --root tests/l1/all-libvirt

check-debug: setup
	@$(ninja) all debug-kasan.stamp debug-kcsan.stamp
	@./scripts/in-root ./scripts/check --suite debug $(TESTS)

fuzz: setup
	@$(ninja) fuzz.stamp
	@./scripts/in-root tests/fuzz/run fuzz

docs: setup
	@./scripts/in-root docs/make

series: signer setup
	@./scripts/in-root ./scripts/build/series

series-check: series
	@./tests/series/each-patch

signer:
	@[ -n "$$SIGNOFF" ] || { echo "nobody to sign the patches off: set git's user.name" \
		"and user.email, or SIGNOFF='Name <address>'" >&2; exit 1; }

setup:
	@./scripts/bootstrap
	@./scripts/in-root sh -c '[ -f /b/meson/build.ninja ] || \
		meson setup /b/meson . > /b/meson-setup.log 2>&1 || \
		{ cat /b/meson-setup.log >&2; rm -rf /b/meson; exit 1; }'

clean:
	for b in build build/bases/*; do \
		(cd $$b 2> /dev/null && rm -rf meson qemu qemu-src module l1 guest bin deb) || true; done

distclean: clean
	@bash -c ". scripts/lib.sh; as_root rm -rf --one-file-system build"

.PHONY: all l1 demo deb deb-qemu check check-bases check-debug check-deb check-deb-qemu check-libvirt check-selftests check-reload check-hosts check-helper check-failures check-bare check-moves check-es bench fuzz docs series series-check signer setup clean distclean
