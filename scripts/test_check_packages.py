#!/usr/bin/env python3
"""check_packages.py must find what is wrong: a good package passes, each damaged copy falls short.

    python3 -m unittest discover scripts
"""

import json
import shutil
import tempfile
import unittest
from pathlib import Path

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.proto import MIL_pb2, Model_pb2

import check_packages

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
SECOND_RECORD = 64 + 64 + 384  # header, first record, 8 x 8 x 3 x 1 halves
END = SECOND_RECORD + 64 + 128  # second record, 8 x 8 x 1 x 1 halves


def make_package(path):
    """Two convolutions with metadata, as coremltools writes them."""

    @mb.program(
        input_specs=[mb.TensorSpec((2, 8, 4, 4), dtype=types.fp16)], opset_version=ct.target.iOS16
    )
    def program(sample):
        weight = np.arange(192, dtype=np.float16).reshape(8, 8, 3, 1)
        x = mb.conv(x=sample, weight=weight)
        return mb.conv(x=x, weight=weight[:, :, :1] + 1, name="noise_pred")

    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.short_description, model.version = "a test", "1"
    model.user_defined_metadata["key"] = "value"
    model.input_description["sample"] = model.output_description["noise_pred"] = "a tensor"
    model.save(str(path))


def patch(offset, data):
    def damage(package):
        with (package / WEIGHTS).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return damage


def edit(change):
    def damage(package):
        spec = Model_pb2.Model()
        spec.ParseFromString((package / MODEL).read_bytes())
        function = spec.mlProgram.functions["main"]
        change(spec, function.block_specializations[function.opset])
        (package / MODEL).write_bytes(spec.SerializeToString())

    return damage


def rename_output(spec, block):
    block.operations[-1].outputs[0].name = block.outputs[0] = "1x"
    spec.description.output[0].name = "1x"



CASES = {
    "the last blob ends": patch(END, b"\0"),
    "header counts": patch(0, b"\3"),
    "file format version": patch(4, b"\1"),
    "sentinel": patch(SECOND_RECORD, b"\0"),
    "expects (type, bytes)": patch(0, b"\1"),
    "reserved bytes": patch(SECOND_RECORD + 40, b"\1"),
    "illegal name '1x'": edit(rename_output),
    "`versionString` is empty": edit(lambda spec, _: spec.description.metadata.ClearField("versionString")),
    "`sample` has no description": edit(lambda spec, _: spec.description.input[0].ClearField("shortDescription")),
    "opset CoreML6 with specification 8": edit(lambda spec, _: setattr(spec, "specificationVersion", 8)),
    "inputs described as": edit(lambda spec, _: setattr(spec.description.input[0], "name", "other")),
    "outputs described as": edit(lambda spec, _: spec.description.output[0].type.multiArrayType.shape.append(1)),
    "attributes": edit(lambda _, block: block.operations[-1].attributes.clear()),
}


class CheckPackages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_package(cls.folder / "good.mlpackage")

    def test_a_good_package_passes_and_stays_as_it_is(self):
        manifest = self.folder / "good.mlpackage/Manifest.json"
        before = manifest.stat().st_mtime_ns
        [report] = check_packages.check_package(self.folder / "good.mlpackage")
        self.assertEqual(report.problems, [])
        self.assertEqual((report.operations, report.blobs), (2, 2))
        self.assertEqual(manifest.stat().st_mtime_ns, before)

    def test_each_damage_is_found(self):
        for expected, damage in CASES.items():
            with self.subTest(expected):
                package = self.folder / "damaged.mlpackage"
                shutil.copytree(self.folder / "good.mlpackage", package)
                damage(package)
                [report] = check_packages.check_package(package)
                problems = "; ".join(report.problems)
                shutil.rmtree(package)
                self.assertIn(expected, problems)


def stage(inputs, outputs):
    features = [[(name, (2, 4), MIL_pb2.FLOAT16) for name in names.split()] for names in (inputs, outputs)]
    return check_packages.Report(Path("x"), inputs=features[0], outputs=features[1])


class CheckChain(unittest.TestCase):
    def problems(self, *stages):
        check_packages.check_chain(stages)
        return "; ".join(problem for report in stages for problem in report.problems)

    def test_a_chain_that_passes_everything_on(self):
        first = stage("sample timestep time_ids", "a b")
        second, third = stage("a b", "c b2"), stage("c b2 text_embeds", "noise_pred")
        self.assertEqual(self.problems(first, second, third), "")

    def test_what_a_stage_between_does_not_pass_on_is_missing(self):
        found = self.problems(stage("sample", "a b"), stage("a", "c"), stage("c b", "noise_pred"))
        self.assertIn("input `b` is neither passed", found)

    def test_a_stage_of_a_pipeline_sees_all_before_it(self):
        stages = stage("sample time_ids", "a b"), stage("a", "c"), stage("c b", "noise_pred")
        check_packages.check_chain(stages, is_pipeline=True)
        self.assertEqual([report.problems for report in stages], [[], [], []])
        early = stage("sample time_ids b", "a"), stage("a", "b"), stage("b", "noise_pred")
        check_packages.check_chain(early, is_pipeline=True)
        self.assertIn("input `b` is neither passed", "; ".join(early[0].problems))

    def test_outputs_and_the_first_stage(self):
        self.assertIn("2 outputs", self.problems(stage("sample", "a b")))
        self.assertIn("hides", self.problems(stage("sample", "time_ids"), stage("time_ids", "a")))
        late = self.problems(stage("sample", "a"), stage("a time_ids", "noise_pred"))
        self.assertIn("does not declare `time_ids`", late)



class CheckFolder(unittest.TestCase):
    """A folder with a record: the record must say what the packages are."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        package = self.folder / "Unet.mlpackage"
        make_package(package)
        files = [
            {"path": path.relative_to(self.folder).as_posix(), "bytes": path.stat().st_size}
            for path in package.rglob("*")
            if path.is_file()
        ]
        self.chunk = {
            "path": "Unet.mlpackage",
            "weight_bytes": END,
            "package_bytes": sum(file["bytes"] for file in files),
            "operations": 2,
            "within_limit": True,
            "inputs": [{"name": "sample", "shape": [2, 8, 4, 4], "dtype": "fp16", "bytes": 512}],
            "outputs": [{"name": "noise_pred", "shape": [2, 8, 2, 4], "dtype": "fp16", "bytes": 256}],
        }
        self.component = {
            "limit": {"profile": "explicit", "bytes": END},
            "chunks": [self.chunk],
            "packages": ["Unet.mlpackage"],
            "packages_bytes": self.chunk["package_bytes"],
            "files": files,
        }

    def problems(self):
        record = {"schema_version": 1, "components": {"unet": self.component}}
        (self.folder / "conversion.json").write_text(json.dumps(record))
        reports = check_packages.check(self.folder)
        return "; ".join(problem for report in reports for problem in report.problems)

    def test_a_true_record(self):
        self.assertEqual(self.problems(), "")

    def test_false_records(self):
        self.chunk["inputs"][0]["bytes"] = 511
        self.chunk["operations"] = 3
        self.component["files"][0]["bytes"] += 1
        self.component["limit"]["bytes"] = END - 1
        self.component["packages_bytes"] += 2
        self.chunk["package_bytes"] += 1
        found = self.problems()
        for expected in (
            "inputs recorded",
            "`operations` recorded",
            "files recorded",
            "the limit is",
            "`packages_bytes`",
            "`package_bytes`",
        ):
            self.assertIn(expected, found)

    def test_a_package_that_is_not_there(self):
        self.component["packages"] = ["Other.mlpackage"]
        self.assertIn("not there", self.problems())


if __name__ == "__main__":
    unittest.main()
