"""One world that all nodes act in, as a service: ``fauno world serve``.

``wire``    requests and answers, and the comparison of the settings of both ends.
``host``    the world, which ticks in a thread of its own, and its record of each agent.
``tokens``  who may act as which agent: tokens derived from one secret.
``server``  gRPC, TLS and the check of the token in front of the host.
``client``  a node's end: it joins, deploys its actor, and collects its own decisions.
``table``   outcomes of the tasks of the world, by origin and by server.
"""
