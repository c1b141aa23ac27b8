import functools
import gzip
import hashlib
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from unit.client.image_files import emnist_archive, idx, images, write_batch, write_mnist

from fedstep.client.tasks.images import ImageTask, cifar10, cifar100, emnist, emnist_letters, fashion_mnist, mnist
from fedstep.client.vision import load_torchvision
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData, ClientInfo

REAL = Path(__file__).parents[4] / ".." / "shared" / "data" / "cifar10_lossless4k_py.tar.gz"
OWN = {"verify": "false"}


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Two training batches of 30 and a test batch of 20."""
    folder = tmp_path / "cifar-10-batches-py"
    for number in (1, 2):
        write_batch(folder / f"data_batch_{number}", 30, seed=number)
    write_batch(folder / "test_batch", 20)
    return tmp_path


def load(task: ImageTask, data: Path, partition: tuple[int, int] | None = (0, 1), **more: str) -> ClientData:
    return task.load_data(ClientInfo("ann", partition, {"data": str(data), **more}))


def tensors(samples: object) -> tuple[torch.Tensor, ...]:
    assert isinstance(samples, torch.utils.data.TensorDataset)
    return samples.tensors


def size(share: ClientData) -> int:
    return sum(len(tensors(samples)[1]) for samples in (share.train, share.validation))


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def dataset(name: str) -> Any:
    return getattr(load_torchvision("datasets"), name)


def make_originals(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Has torchvision take the batches that are there for CIFAR-10."""
    folder = root / "cifar-10-batches-py"
    lists = {"train_list": ("data_batch_1", "data_batch_2"), "test_list": ("test_batch",)}
    for attribute, names in lists.items():
        found = [[name, md5((folder / name).read_bytes())] for name in names]
        monkeypatch.setattr(dataset("CIFAR10"), attribute, found)


def test_files_of_ones_own_are_read_when_one_says_so(cifar: Path) -> None:
    shares = [load(cifar10, cifar, (index, 6), partitioner="iid", **OWN) for index in range(6)]
    assert [size(share) for share in shares] == [10] * 6
    inputs, targets = tensors(shares[0].train)
    assert inputs.shape[1:] == (3, 32, 32)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert cifar10.build_model({})(inputs).shape == (len(inputs), 10)
    held_out = cifar10.load_held_out({"data": str(cifar), **OWN})
    assert tensors(held_out)[0].shape == (20, 3, 32, 32)
    assert cifar10.load_held_out({}) is None


def test_pixels_are_scaled_by_channel(cifar: Path) -> None:
    raw = pickle.loads((cifar / "cifar-10-batches-py" / "test_batch").read_bytes())["data"]  # noqa: S301  # our own
    inputs, _ = tensors(cifar10.load_held_out({"data": str(cifar), **OWN}))
    wanted = raw.reshape(20, 3, 32, 32)[3, 2, 5, 7] / 255
    assert float(inputs[3, 2, 5, 7]) * 0.2616 + 0.4465 == pytest.approx(wanted, abs=1e-6)


def test_a_wrong_checksum_is_an_error_that_says_what_to_do(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"data_batch_1 is not the original of CIFAR-10 .*verify=false"):
        load(cifar10, cifar)
    make_originals(monkeypatch, cifar)
    assert size(load(cifar10, cifar)) == 60
    write_batch(cifar / "cifar-10-batches-py" / "data_batch_2", 30, seed=3)
    with pytest.raises(InvalidInputError, match=r"data_batch_2 is not the original"):
        load(cifar10, cifar)
    (cifar / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(InvalidInputError, match=r"cannot be checked, for there is no .*data_batch_2"):
        load(cifar10, cifar)


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    write_batch(tmp_path / "cifar-100-python" / "train", 200, classes=100, key="fine_labels")
    share = load(cifar100, tmp_path, partitioner="shards", **OWN)
    assert size(share) == 200
    assert int(tensors(share.train)[1].max()) > 90


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_and_its_kin_are_read_gzipped_or_not(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", 40, 20, packed)
    write_mnist(tmp_path / "FashionMNIST" / "raw", 30, 10, packed)
    share = load(mnist, tmp_path, validation="0", **OWN)
    inputs, targets = tensors(share.train)
    assert inputs.shape == (40, 1, 28, 28)
    assert targets.tolist() == [number % 10 for number in range(40)]
    assert float(inputs[7, 0, 3, 4]) * 0.3081 + 0.1307 == pytest.approx(images(40)[7, 3, 4] / 255, abs=1e-6)
    assert mnist.build_model({})(inputs[:2]).shape == (2, 10)
    assert len(tensors(mnist.load_held_out({"data": str(tmp_path), **OWN}))[1]) == 20
    assert size(load(fashion_mnist, tmp_path, **OWN)) == 30


def test_unpacked_files_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw, 40, 20, packed=False)
    with pytest.raises(InvalidInputError, match=r"MNIST cannot be checked, for there is no .*train-images.*\.gz"):
        load(mnist, tmp_path)
    write_mnist(raw, 50, 20, packed=True)
    found = [(path.name, md5(path.read_bytes())) for path in sorted(raw.glob("*.gz"))]
    monkeypatch.setattr(dataset("MNIST"), "resources", found)
    assert size(load(mnist, tmp_path)) == 50  # what was checked is what is read


def test_emnist_stands_upright_and_letters_count_from_nought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for task, split, classes, first in ((emnist, "balanced", 47, 0), (emnist_letters, "letters", 26, 1)):
        archive = emnist_archive(split, 94, classes, first)
        (raw / "gzip.zip").write_bytes(archive)
        monkeypatch.setattr(dataset("EMNIST"), "md5", md5(archive))
        share = load(task, tmp_path, validation="0")
        inputs, targets = tensors(share.train)
        assert inputs.shape == (94, 1, 28, 28)
        assert (inputs[:, 0, 0, 27] == inputs.max()).all()  # white in the upper right corner
        assert sorted(set(targets.tolist())) == list(range(classes))
        assert task.build_model({})(inputs[:2]).shape == (2, classes)


def test_emnist_may_be_unpacked(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "emnist-balanced-train-images-idx3-ubyte").write_bytes(idx(images(94)))
    (raw / "emnist-balanced-train-labels-idx1-ubyte").write_bytes(idx(np.arange(94) % 47))
    assert size(load(emnist, tmp_path, **OWN)) == 94


def test_labels_that_the_set_does_not_have_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "emnist-balanced-train-images-idx3-ubyte").write_bytes(idx(images(94)))
    (raw / "emnist-balanced-train-labels-idx1-ubyte").write_bytes(idx(np.arange(94) % 62))
    with pytest.raises(InvalidInputError, match="has the label 61, and 47 classes are 0 to 46"):
        load(emnist, tmp_path, **OWN)


class Nothing:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run!",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps(Nothing()), r"it names builtins\.print"),
        (pickle.dumps([1]), "it holds no dict"),
        (pickle.dumps({"data": [1]}), "it has no fine_labels"),
        (pickle.dumps({"labels": [1]}), "it has no data"),
        (
            pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}),
            r"its data are float64 \[2, 3072\] for 2 labels",
        ),
        (pickle.dumps({"data": np.zeros((2, 3), np.uint8), "labels": [0, 1]}), r"uint8 \[2, 3\]"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": ["a", "b"]}), "invalid literal"),
        (b"", "cannot be read"),
        (b"nonsense", "cannot be read"),
    ],
)
def test_a_batch_that_is_none_is_named_and_not_run(
    tmp_path: Path, content: bytes, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        load(cifar10, tmp_path, **OWN)
    assert "data_batch_1" in str(caught.value)
    assert "run!" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"nonsense", "does not begin as idx3"),
        (idx(np.zeros(3)), "does not begin as idx3"),
        (idx(np.zeros((3, 28, 28)))[:-1], "cannot reshape"),
        (b"\0\0\x08\x03\0", "cannot be read"),
    ],
)
def test_an_idx_file_that_is_none_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw, 10, 10, packed=False)
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InvalidInputError, match=sentence):
        load(mnist, tmp_path, **OWN)
    (raw / "train-images-idx3-ubyte").unlink()
    (raw / "train-images-idx3-ubyte.gz").write_bytes(b"nonsense")
    with pytest.raises(InvalidInputError, match=r"ubyte\.gz cannot be read"):
        load(mnist, tmp_path, **OWN)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images(9))))
    with pytest.raises(InvalidInputError, match="9 images and 10 labels"):
        load(mnist, tmp_path, **OWN)


def test_what_is_missing_is_named(tmp_path: Path, cifar: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"There is no MNIST in .*: put the folder MNIST/raw there"):
        load(mnist, tmp_path)
    with pytest.raises(InvalidInputError, match="mnist needs its data"):
        mnist.load_data(ClientInfo("ann"))
    with pytest.raises(InvalidInputError, match="give each its share, such as --partition 1/100"):
        load(cifar10, cifar, None, **OWN)
    with pytest.raises(InvalidInputError, match="verify=maybe must be true or false"):
        load(cifar10, cifar, verify="maybe")
    with pytest.raises(InvalidInputError, match="give one of them"):
        load(cifar10, cifar, download="true", **OWN)
    with pytest.raises(InvalidInputError, match="partitioner=natural needs data that say whose"):
        load(cifar10, cifar, partitioner="natural", **OWN)
    with pytest.raises(InvalidInputError, match="group=ann needs data that say whose"):
        load(cifar10, cifar, None, group="ann", **OWN)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address it is served at."""
    folder = tmp_path / "website"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_what_is_not_there_is_downloaded_and_checked(
    tmp_path: Path, website: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = website
    write_mnist(folder, 40, 20, packed=True)
    found = [(path.name, md5(path.read_bytes())) for path in sorted(folder.glob("*.gz"))]
    monkeypatch.setattr(dataset("MNIST"), "resources", found)
    monkeypatch.setattr(dataset("MNIST"), "mirrors", [f"{address}none/", address])
    assert size(load(mnist, tmp_path, download="true")) == 40
    for path in folder.iterdir():
        path.unlink()
    assert size(load(mnist, tmp_path, download="true")) == 40  # it is there
    assert size(load(mnist, tmp_path)) == 40
    (tmp_path / "MNIST" / "raw" / found[0][0]).write_bytes(b"damaged")
    with pytest.raises(InvalidInputError, match=r"MNIST cannot be downloaded to .*404"):
        load(mnist, tmp_path, download="true")


def test_cifar_is_downloaded_and_unpacked(
    tmp_path: Path, cifar: Path, website: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = website
    make_originals(monkeypatch, cifar)
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(dataset("CIFAR10"), "url", f"{address}{archive.name}")
    monkeypatch.setattr(dataset("CIFAR10"), "tgz_md5", md5(archive.read_bytes()))
    assert size(load(cifar10, tmp_path / "new", download="true")) == 60


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data/cifar10_lossless4k_py.tar.gz is not here")
def test_the_real_images_load(tmp_path: Path) -> None:
    shutil.unpack_archive(REAL, tmp_path)
    with cifar10.loading_many():
        shares = [load(cifar10, tmp_path, (index, 30), alpha="0.3", **OWN) for index in range(30)]
    assert sum(size(share) for share in shares) == 3000
    assert min(size(share) for share in shares) > 0
    inputs, targets = tensors(cifar10.load_held_out({"data": str(tmp_path), **OWN}))
    assert inputs.shape == (1000, 3, 32, 32)
    assert inputs.mean().abs() < 0.1
    assert inputs.std() == pytest.approx(1, abs=0.1)
    assert set(targets.tolist()) == set(range(10))
    with pytest.raises(InvalidInputError, match="is not the original of CIFAR-10"):
        load(cifar10, tmp_path)
