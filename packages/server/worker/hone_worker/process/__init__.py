"""What every process of the worker needs: errors, HTTP, faults, the compute thread."""
