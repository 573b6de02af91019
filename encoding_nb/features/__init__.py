"""Feature spaces: words, and a language model's activations, to features at TRs."""

from .activations import (
    PROCESSINGS,
    ActivationSpec,
    check_spec,
    default_memory,
    device_problem,
    layer_activations,
    token_embeddings,
)
from .cache import cache_info, prune_cache, store_folder
from .models import (
    FIRST_TOKENS,
    FirstToken,
    ModelError,
    ModelInfo,
    available_models,
    load_tokenizer,
    model_folder,
    model_info,
)
from .spaces import (
    FEATURE_SPACES,
    WORD_RATE_BINS,
    FeatureSpec,
    JoinedFeatures,
    file_embeddings,
    is_cached,
    is_vector_file,
    joined_features,
    stored_contexts,
    word_rate,
)
from .tokens import CONTEXT_TYPES, context_windows, tokenize_words

__all__ = [
    "CONTEXT_TYPES",
    "FEATURE_SPACES",
    "FIRST_TOKENS",
    "PROCESSINGS",
    "WORD_RATE_BINS",
    "ActivationSpec",
    "FeatureSpec",
    "FirstToken",
    "JoinedFeatures",
    "ModelError",
    "ModelInfo",
    "available_models",
    "cache_info",
    "check_spec",
    "context_windows",
    "default_memory",
    "device_problem",
    "file_embeddings",
    "is_cached",
    "is_vector_file",
    "joined_features",
    "layer_activations",
    "load_tokenizer",
    "model_folder",
    "model_info",
    "prune_cache",
    "store_folder",
    "stored_contexts",
    "token_embeddings",
    "tokenize_words",
    "word_rate",
]
