"""Small models on small data: more threads than one only get in each other's way."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest.register_assert_rewrite("tests.support")  # so that its asserts say as much as those of a test
