"""An exported run as an MLflow model: images in, labels and masks out.

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
    """A model that answers as the exported run does."""

    def load_context(self, context: Any) -> None:
        """Load the exported run from the model's artifact `learned`."""
        self._run = ExportedRun(Path(context.artifacts["learned"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # MLflow warns about any other type hint, and about none
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The label of each image and the number of the mask that answered, one row per image.

        model_input: (images, *input_shape), float32. params: `task`, where the scenario gives the task; -1 means none.
        InputError as in ExportedRun.answer.
        """
        task = int((params or {}).get("task", -1))
        x = torch.from_numpy(np.array(model_input, np.float32))
        labels, masks = self._run.answer(x, None if task < 0 else task)
        return pd.DataFrame({"label": labels.numpy(), "mask": masks.numpy()})


mlflow.models.set_model(LearnedModel())
