"""PyTorch tensors: the same answers as NumPy's, gradients and layouts refused by name; on a GPU streams and graphs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import adamas  # noqa: E402
from conftest import ERROR, make_layer  # noqa: E402

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def tensor(array, kv_type):
    """A tensor of the layer's data, bfloat16 from its bits."""
    if kv_type == "bf16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


class Torch:
    """A layer as tensors on a device, with kernels, codes and a plan."""

    def __init__(self, context, device, kv_type, lengths=(400, 130, 60, 0)):
        self.layer = make_layer(list(lengths), kv_type=kv_type, dim=128)
        layer = self.layer
        self.query, self.keys, self.values = (
            tensor(x, kv_type).to(device) for x in (layer.query, layer.keys, layer.values)
        )
        self.lengths = torch.from_numpy(layer.lengths).to(device)
        self.thresholds = torch.from_numpy(layer.thresholds).to(device)
        batch, tokens, kv_heads, dim = layer.keys.shape
        self.kernels = context.prepare(
            f"head_dim={dim} group=4 kv_type={kv_type} cache_form=contiguous",
            max_batch=batch,
            kv_heads=kv_heads,
            max_tokens=tokens,
        )
        self.cache = self.kernels.cache(self.keys, self.values)
        self.codes = torch.zeros(self.kernels.code_bytes, dtype=torch.uint8, device=device)
        self.kernels.encode(self.cache, self.codes, self.thresholds)
        self.plan = self.kernels.plan(batch)
        self.out = torch.empty_like(self.query)

    def decode(self, **options):
        self.plan.decode(self.query, self.cache, self.codes, self.lengths, self.out, **options)

    def check(self):
        wanted, _, _ = self.layer.answer(128)
        got = self.out.float().cpu().numpy()
        error = np.linalg.norm(got - wanted, axis=-1)
        assert (error <= ERROR[self.layer.kv_type] * np.maximum(np.linalg.norm(wanted, axis=-1), 1e-30)).all()


@pytest.mark.parametrize("kv_type", TYPES)
def test_cpu_tensors(context, kv_type):
    given = Torch(context, "cpu", kv_type)
    given.decode()
    given.check()


def test_what_tensors_cannot_be(context):
    given = Torch(context, "cpu", "f32")
    cases = [
        (given.query.clone().requires_grad_(), "requires? grad"),
        (given.query.to_sparse(), "query"),
        (given.query.half(), "dtype float16; wanted dtype float32"),
        (given.query.double(), "dtype float64"),
        (given.query.transpose(0, 1), r"shape \(8, 4, 128\)"),
        (given.query.to("meta"), "query"),
    ]
    for wrong, said in cases:
        with pytest.raises(ValueError, match=said) as raised:
            given.plan.decode(wrong, given.cache, given.codes, given.lengths, given.out)
        assert "query" in str(raised.value)


def test_code_cache_of_tensors(context):
    layer = make_layer([40], dim=128)
    kernels = context.prepare("head_dim=128 group=4 kv_type=f32", max_batch=1, kv_heads=2, max_tokens=48)
    order = torch.tensor([[2, 0, 1]], dtype=torch.int32)
    keys, values = (torch.zeros(3, 16, 2, 128) for _ in range(2))
    for t in range(40):
        keys[order[0, t // 16], t % 16] = torch.from_numpy(layer.keys[0, t])
        values[order[0, t // 16], t % 16] = torch.from_numpy(layer.values[0, t])
    codes = adamas.CodeCache(kernels, keys, values, torch.from_numpy(layer.thresholds))
    codes.encode_pages(order[0])
    by_pages = codes.codes.clone()
    codes.codes.zero_()
    lengths = torch.tensor([40], dtype=torch.int32)
    codes.append(order, lengths, 40)
    exported = [torch.empty(48, 2, 128, dtype=torch.uint8) for _ in range(2)]
    for source, bytes_ in zip((by_pages, codes.codes), exported):
        kernels.export_codes(source, bytes_)
    slots = codes.slots(order, torch.arange(40, dtype=torch.int32)[None])[0].long()
    assert torch.equal(exported[0][slots], exported[1][slots])
    out = torch.empty(1, 8, 128)
    codes.decode(kernels.plan(1), torch.from_numpy(layer.query), order, lengths, out)
    layer.check(out.numpy(), 128)


def test_jax_arrays(context):
    jax = pytest.importorskip("jax")
    layer = make_layer([300])
    kernels = context.prepare(
        "head_dim=64 group=4 kv_type=f32 cache_form=contiguous", max_batch=1, kv_heads=2, max_tokens=300
    )
    cpu = jax.devices("cpu")[0]  # where there is a GPU, JAX would take that

    def array(values):
        return jax.device_put(values, cpu)

    cache = kernels.cache(array(layer.keys), array(layer.values))
    codes = np.zeros(kernels.code_bytes, np.uint8)
    kernels.encode(cache, codes, array(layer.thresholds))
    out = np.empty_like(layer.query)
    kernels.plan(1).decode(array(layer.query), cache, codes, array(layer.lengths), out)
    layer.check(out, 128)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def gpu():
    return adamas.Context("cuda:0")


@needs_gpu
@pytest.mark.parametrize("kv_type", ["f16", "bf16"])
def test_cuda_tensors(gpu, kv_type):
    given = Torch(gpu, "cuda:0", kv_type)
    given.decode()
    given.check()


@needs_gpu
def test_current_stream_and_graph(gpu):
    """On a side stream, behind work that delays the query; then captured and replayed with new data."""
    given = Torch(gpu, "cuda:0", "f16")
    right = given.query.clone()
    given.decode()
    torch.cuda.synchronize()
    given.query.zero_()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        given.query.copy_(right)
        given.decode()
    stream.synchronize()
    given.check()
    counters = gpu.counters()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        given.decode(counters=counters)
    given.out.zero_()
    for _ in range(3):
        graph.replay()
    given.check()
    assert counters.read()["rows"] == 3 * 3 * 8
    given.decode(stream=stream)
    given.decode(stream=stream.cuda_stream)
    with pytest.raises(ValueError, match="stream"):
        given.decode(stream="main")


@needs_gpu
def test_tensors_on_the_wrong_device(gpu, context):
    given = Torch(gpu, "cuda:0", "f16")
    with pytest.raises(ValueError, match="query: an array on cpu; wanted one on cuda:0"):
        given.plan.decode(given.query.cpu(), given.cache, given.codes, given.lengths, given.out)
    host = Torch(context, "cpu", "f16")
    with pytest.raises(ValueError, match="lengths: an array on cuda:0; wanted one on cpu"):
        host.plan.decode(host.query, host.cache, host.codes, given.lengths, host.out)


@needs_gpu
def test_cupy_arrays(gpu):
    cupy = pytest.importorskip("cupy")
    given = Torch(gpu, "cuda:0", "f16")
    query, lengths = cupy.asarray(given.layer.query), cupy.asarray(given.layer.lengths)
    out = cupy.zeros_like(query)
    stream = cupy.cuda.Stream(non_blocking=True)
    torch.cuda.synchronize()
    with stream:
        given.plan.decode(query, given.cache, given.codes, lengths, out)
    stream.synchronize()
    given.layer.check(cupy.asnumpy(out), 128)
