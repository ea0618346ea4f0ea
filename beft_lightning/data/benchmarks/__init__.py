"""The benchmarks: their tasks as records, and DataModules that read them."""
