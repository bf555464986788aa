"""Running the installation: the embedded server, ``prepaid up``, the doctor, Dagster's home."""
