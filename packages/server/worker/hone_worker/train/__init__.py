"""One training operation: the step data and policy N in, the files of policy N+1 out."""
