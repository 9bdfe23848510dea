"""Pages from the network: asked for by the rules of their hosts, and kept."""
