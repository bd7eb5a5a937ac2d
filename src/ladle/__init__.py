"""Ladle: distil label assignment, and everything else a strong detector can teach a small one."""
