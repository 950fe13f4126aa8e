"""Version orders, one module a scheme, behind `interface.py`: compared with the real tools in the tests."""
