"""Systems: chips, routers, cores, links, capacities and costs."""
