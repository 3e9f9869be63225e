"""Plan where each leaf of a tree lives on many devices, by rules, before anything is allocated; place it, and what follows it."""
