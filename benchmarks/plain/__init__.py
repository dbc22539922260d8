# SPDX-License-Identifier: BSD-3-Clause
"""Plain forms of what the project computes fast: to check it by, and to compare its speed with."""
