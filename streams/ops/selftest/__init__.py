"""A synthetic prober through the live path: is the service armed, and where is it broken?"""
