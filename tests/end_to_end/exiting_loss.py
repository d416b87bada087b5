"""A plugin file for tests: a loss that ends its process in the middle of training, as if all were well."""

import os
import sys

from mta_framework import BaseLoss, hookimpl


class ExitingLoss(BaseLoss):
    """Calls ``sys.exit(0)``, or ``os._exit(0)`` where the environment says so."""

    NAME = "exiting"
    NEEDS_TEACHER = False

    def compute(self, student, teacher, batch, progress):
        if "AT_ONCE" in os.environ:
            os._exit(0)
        sys.exit(0)


@hookimpl
def mta_register_base_losses():
    return (ExitingLoss,)
