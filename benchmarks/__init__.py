"""How fast the package is, and what that needs: measured against its peers, on this machine."""
