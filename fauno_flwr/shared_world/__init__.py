"""One network that all nodes act in, as a service of its own: ``fauno world serve``.

``wire``    what client and service say to each other, and whether their settings agree.
``host``    the world itself, ticking in a thread of its own, and what it keeps for each agent.
``server``  gRPC, TLS and the token in front of the host.
``client``  a node's end: it joins, deploys its actor, and collects its own decisions.
``table``   how the tasks of the world fared, and who served whose.
"""
