"""From a pulled version to a candidate bundle, built by a confined process."""
