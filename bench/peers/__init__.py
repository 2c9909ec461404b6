"""We beside our peers on the same work; a package, since each contender runs in a process of its own."""
