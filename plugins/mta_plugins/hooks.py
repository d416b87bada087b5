"""Registers the built-in plugins: their only list."""

from collections.abc import Sequence

from mta_framework import AlignmentTerm, BaseLoss, ImportanceEstimator, LayerMapper, Metric, SpanExtractor, hookimpl
from mta_plugins.alignment_terms.cka import LinearCKA
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.hid import Hid
from mta_plugins.alignment_terms.hidden_mse import HiddenMSE
from mta_plugins.alignment_terms.span_logits import SpanLogits
from mta_plugins.alignment_terms.trajectory import Trajectory
from mta_plugins.alignment_terms.transitions import Transitions
from mta_plugins.base_losses.ab import AB
from mta_plugins.base_losses.akl import AKL
from mta_plugins.base_losses.alm import ALM
from mta_plugins.base_losses.amid import AMiD
from mta_plugins.base_losses.csd import CSD
from mta_plugins.base_losses.distillm import DistiLLM
from mta_plugins.base_losses.distillm2 import DistiLLM2
from mta_plugins.base_losses.eopd import EOPD
from mta_plugins.base_losses.fdd import FDD
from mta_plugins.base_losses.jsd import JSD
from mta_plugins.base_losses.kl import KL
from mta_plugins.base_losses.none import NoBaseLoss
from mta_plugins.base_losses.policy_gradient import PolicyGradient
from mta_plugins.base_losses.sft import SFT
from mta_plugins.base_losses.taid import TAID
from mta_plugins.base_losses.todi import ToDi
from mta_plugins.base_losses.uld import ULD
from mta_plugins.importance_estimators.attention import Attention
from mta_plugins.importance_estimators.entropy import Entropy
from mta_plugins.importance_estimators.last_token import LastToken
from mta_plugins.importance_estimators.surprisal import Surprisal
from mta_plugins.importance_estimators.uniform import Uniform
from mta_plugins.layer_mappers.cka import CKA
from mta_plugins.layer_mappers.explicit import Explicit
from mta_plugins.layer_mappers.proportional import Proportional
from mta_plugins.metrics.distinct_n import DistinctN
from mta_plugins.metrics.exact_match import ExactMatch
from mta_plugins.metrics.judge import Judge
from mta_plugins.metrics.perplexity import Perplexity
from mta_plugins.metrics.rouge_l import RougeL
from mta_plugins.span_extractors.code import Code
from mta_plugins.span_extractors.math import Math
from mta_plugins.span_extractors.mixed import Mixed
from mta_plugins.span_extractors.spacy_phrases import SpacyPhrases
from mta_plugins.span_extractors.stanza_phrases import StanzaPhrases
from mta_plugins.span_extractors.words import Words


@hookimpl
def mta_register_span_extractors() -> Sequence[type[SpanExtractor]]:
    return Code, SpacyPhrases, StanzaPhrases, Math, Mixed, Words


@hookimpl
def mta_register_importance_estimators() -> Sequence[type[ImportanceEstimator]]:
    return Attention, LastToken, Uniform, Entropy, Surprisal


@hookimpl
def mta_register_layer_mappers() -> Sequence[type[LayerMapper]]:
    return Proportional, Explicit, CKA


@hookimpl
def mta_register_alignment_terms() -> Sequence[type[AlignmentTerm]]:
    return DSA, Hid, Trajectory, Transitions, HiddenMSE, SpanLogits, LinearCKA


@hookimpl
def mta_register_base_losses() -> Sequence[type[BaseLoss]]:
    return (
        SFT,
        KL,
        JSD,
        AB,
        AKL,
        ToDi,
        CSD,
        DistiLLM,
        DistiLLM2,
        AMiD,
        TAID,
        EOPD,
        PolicyGradient,
        FDD,
        ULD,
        ALM,
        NoBaseLoss,
    )


@hookimpl
def mta_register_metrics() -> Sequence[type[Metric]]:
    return RougeL, ExactMatch, Perplexity, DistinctN, Judge
