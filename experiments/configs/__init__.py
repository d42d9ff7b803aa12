"""One file a dataset family, with its `get_config`; beside them what checks and reads configs."""
