"""VIM benchmark: the source document's three experiments on any VIM of a running agent."""
