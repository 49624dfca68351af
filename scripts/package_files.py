"""Packages as fixtures: saved by coremltools, then stripped of what differs from run to run."""

import json
import shutil
import tempfile
from pathlib import Path

from coremltools.proto import Model_pb2

AUTHOR = "com.apple.CoreML"
MODEL_PATH = f"Data/{AUTHOR}/model.mlmodel"
WEIGHTS_PATH = f"Data/{AUTHOR}/weights"
DATE_KEY = "com.github.apple.coremltools.conversion_date"
# Any text may be an item's id: coremltools draws new ones for each package.
MODEL_ID, WEIGHTS_ID = "model", "weights"


def save(model, path):
    """Saves an `MLModel` as a package."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved.mlpackage"
        model.save(str(saved))
        settle(saved, path)


def settle(source, path):
    """Copies a package, with fixed ids, without the date of its making, and with maps in order."""
    shutil.rmtree(path, ignore_errors=True)
    (path / MODEL_PATH).parent.mkdir(parents=True)
    spec = Model_pb2.Model()
    spec.ParseFromString((source / MODEL_PATH).read_bytes())
    spec.description.metadata.userDefined.pop(DATE_KEY, None)
    for stage in spec.pipeline.models if spec.WhichOneof("Type") == "pipeline" else []:
        stage.description.metadata.userDefined.pop(DATE_KEY, None)
    (path / MODEL_PATH).write_bytes(spec.SerializeToString(deterministic=True))
    items = {MODEL_ID: _item("model.mlmodel", "CoreML Model Specification")}
    blobs = sorted((source / WEIGHTS_PATH).glob("*")) if (source / WEIGHTS_PATH).is_dir() else []
    if blobs:
        items[WEIGHTS_ID] = _item("weights", "CoreML Model Weights")
        (path / WEIGHTS_PATH).mkdir()
    for blob in blobs:
        shutil.copyfile(blob, path / WEIGHTS_PATH / blob.name)
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": items,
        "rootModelIdentifier": MODEL_ID,
    }
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def _item(name, description):
    return {"author": AUTHOR, "description": description, "name": name, "path": f"{AUTHOR}/{name}"}
