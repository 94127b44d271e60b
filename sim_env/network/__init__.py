"""Networks: nodes, links, generators, files, failures."""
