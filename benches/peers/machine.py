"""What the GPU and the libraries are, and the GPU's clocks, power and heat. Never sets anything."""

import subprocess

THROTTLE = (  # the driver's bits, from the lowest
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
)


def throttle_names(mask):
    """What the bits mean; one that the driver has got since is named by its number."""
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    return [THROTTLE[bit] if bit < len(THROTTLE) else f"bit_{bit}" for bit in bits]


def number(text):
    try:
        return float(text)
    except ValueError:
        return None  # "[N/A]"


class Smi:
    """nvidia-smi, where it is there."""

    def __init__(self, uuid):
        self.uuid = uuid

    def query(self, *fields):
        """The fields as text, or None."""
        command = ["nvidia-smi", "-i", self.uuid, f"--query-gpu={','.join(fields)}"]
        command += ["--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        values = [value.strip() for value in done.stdout.strip().split(",")]
        return values if len(values) == len(fields) else None

    def telemetry(self, when):
        values = None
        # The new name of the field, then its old one.
        for reasons in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):
            fields = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", reasons)
            values = values or self.query(*fields)
        if values is None:
            return None
        *readings, mask = values
        keys = ("sm_mhz", "mem_mhz", "power_w", "temperature_c")
        try:
            throttle = throttle_names(int(mask, 16))
        except ValueError:
            throttle = []
        return {"when": when, **dict(zip(keys, map(number, readings))), "throttle": throttle}


def describe(torch):
    """The device, and a reader of its state."""
    gpu = torch.cuda.get_device_properties("cuda")
    smi = Smi(f"GPU-{gpu.uuid}")
    driver = smi.query("driver_version")
    device = {
        "name": gpu.name,
        "api": "cuda",
        "driver": driver[0] if driver else "unknown",
        "arch": f"sm_{gpu.major}{gpu.minor}",
        "multiprocessors": gpu.multi_processor_count,
        "l2_bytes": gpu.L2_cache_size,
        "memory": gpu.total_memory,
    }
    return device, smi


def torch_versions(torch):
    cudnn = torch.backends.cudnn.version()
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = None
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}" if cudnn else None,
        "triton": triton,
    }
