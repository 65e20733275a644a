"""One training operation: a batch and policy N in, the files of policy N+1 out."""
