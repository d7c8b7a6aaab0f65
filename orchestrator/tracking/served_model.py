"""Defines an MLflow model that serves an exported run: it takes images and returns labels and mask numbers.

MLflow logs this file as the model's code and runs it to load the model ("models from code"), so nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from orchestrator.results.exported_run import ExportedRun


class LearnedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """An MLflow model that gives the same answers as the exported run."""

    def load_context(self, context: Any) -> None:
        """Load the exported run from the model's artifact `learned`."""
        self._run = ExportedRun(Path(context.artifacts["learned"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # MLflow warns about any other type hint, and about a missing one
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Returns the label of each image and the number of the mask that was used, one row per image.

        model_input: (images, *input_shape), float32. params: `task` is the task's number if the scenario gives the task
        at inference; -1 means that no task is given. Raises InputError as ExportedRun.answer does.
        """
        task = int((params or {}).get("task", -1))
        x = torch.from_numpy(np.array(model_input, np.float32))
        labels, masks = self._run.answer(x, None if task < 0 else task)
        return pd.DataFrame({"label": labels.numpy(), "mask": masks.numpy()})


mlflow.models.set_model(LearnedModel())
