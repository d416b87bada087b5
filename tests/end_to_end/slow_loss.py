"""A plugin file for tests: cross-entropy that takes its time, so that a run can be killed in its middle."""

import time

from mta_framework import TOKENS, BaseLoss, LossTerm, hookimpl


class SlowLoss(BaseLoss):
    """Cross-entropy, slowly."""

    NAME = "slow"
    NEEDS_TEACHER = False

    def compute(self, student, teacher, batch, progress):
        import torch

        time.sleep(0.25)
        hidden_ND = student.final_BTD.flatten(0, 1)[batch.position_N]
        logits_NV = hidden_ND @ student.head.weight_VD.T
        total = torch.nn.functional.cross_entropy(logits_NV, batch.target_N, reduction="sum")
        return (LossTerm("slow", total, TOKENS),)


@hookimpl
def mta_register_base_losses():
    return (SlowLoss,)
