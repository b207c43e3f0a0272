"""The VIM Message Analyzer: from captured messages alone, the time of each phase of an instantiation."""
