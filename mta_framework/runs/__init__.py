"""The commands `mta run` and `mta evaluate`: binding a spec, checks, stages in their order, the folder of a run."""
