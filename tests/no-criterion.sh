#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Stands in for the unit tests where they could not be built.
echo "1..0 # SKIP the unit tests are not built: no Criterion, or switched off (see configure's summary)"
