"""What a training on many devices would need, computed before it is begun: layouts, memory, communication, time."""
