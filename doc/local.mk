# SPDX-License-Identifier: GPL-2.0-or-later
#
# Manual pages: doc/NAME.SECTION.scd is the source; the page made from it is part of the tarball,
# so that building from one needs no scdoc.
MAN_PAGES = \
	doc/thinfs.1

SCDOC_FILES = $(MAN_PAGES:=.scd)
EXTRA_DIST += \
	$(SCDOC_FILES) \
	$(MAN_PAGES) \
	doc/architecture.md \
	doc/dm-thin-format.md \
	doc/durability.md \
	doc/locking.md \
	doc/performance.md
MAINTAINERCLEANFILES += $(MAN_PAGES)

if BUILD_MAN
man_MANS = $(MAN_PAGES)
endif

SUFFIXES = .scd
if HAVE_SCDOC
.scd:
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(SCDOC) < $< > $@.tmp && mv -f $@.tmp $@
endif
