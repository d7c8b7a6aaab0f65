"""The code of an exported run as an MLflow model: images in, labels and masks out. MLflow runs this file (models from
code), so that nothing is pickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from orchestrator.results.exported_run import ExportedRun


class LearnedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers with what a run has learned."""

    def load_context(self, context: Any) -> None:
        """Read the run from the model's artifacts."""
        self._run = ExportedRun(Path(context.artifacts["learned"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,  # MLflow warns of every other hint, and of none
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Images (images, *input_shape), float32, to their labels and the masks that answered. params: `task`, where
        the scenario gives it."""
        task = int((params or {}).get("task", -1))
        x = torch.from_numpy(np.array(model_input, np.float32))
        labels, masks = self._run.answer(x, None if task < 0 else task)
        return pd.DataFrame({"label": labels.numpy(), "mask": masks.numpy()})


mlflow.models.set_model(LearnedModel())
