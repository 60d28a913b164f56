"""What all tests share: a quiet, deterministic TensorFlow, and one seed each."""

import os
import sys

import pytest
from hypothesis import settings

# Before TensorFlow is imported. The Makefile and tools/nb.py set the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads stall on tiny matrices
os.environ.setdefault("TF_MAMBA_EDU_CHECK_SEED", "0")

settings.register_profile("deterministic", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("deterministic")


@pytest.fixture(autouse=True)
def seed():
    """Seed Python, NumPy and TensorFlow, for tests that have imported Keras."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
