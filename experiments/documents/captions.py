"""What is said of records beside their results: epochs, devices, versions; and their groups."""

from experiments.recipes import RECIPES


def epochs_of(config: dict, recipe: str | None = None) -> str:
    """Epochs of the stages, such as 200 + 40."""
    parts = [config["stage1.epochs"]]
    if recipe and RECIPES[recipe].second is not None:
        parts.append(config[f"stage2.{recipe}.epochs"])
    return " + ".join(map(str, parts))


def origins(records: list[dict]) -> str:
    """Devices and versions that the records come from."""
    devices = {record["device"] for record in records}
    devices |= {one for record in records for one in record.get("device_of", {}).values()}
    versions = sorted(
        {
            ", ".join(f"{name} {version}" for name, version in record["versions"].items())
            for record in records
        }
    )
    return f"Device {' and '.join(sorted(devices))}; {'; or '.join(versions)}."


def grouped(records: list[dict], *names: str):
    """Records by the values of some fields, in the order of their first ones."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return groups.items()
