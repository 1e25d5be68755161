no tests ran in 0.01s
ERROR: file or directory not found: =

